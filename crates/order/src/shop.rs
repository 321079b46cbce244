//! Opening the shop: once in a ledger's life, by its first leader.

use std::io;
use std::sync::Arc;

use ledger::access::Access;
use ledger::api_key::{Principal, Scopes};
use ledger::command::{Command, NewApiKey, Request, Shop};
use ledger::shop::ShopState;
use ledger::terms::{Index, LedgerId};

use crate::config::{self, RootKey, Settings};
use crate::history::view::View;

/// With more products, the shop file is compared beside the thread of the runtime.
const LARGE: usize = 1_000;

/// The requests that open the shop, decided in one entry: a store with a root key is closed from
/// its first order on.
pub(crate) fn first_entry(settings: &Settings) -> Vec<Request> {
    let plain = |command| Request { key: None, deadline: None, certificate: None, command };
    let root = settings.root_key.iter().flat_map(|RootKey { id, digest }| {
        let root = NewApiKey {
            id: *id,
            digest: *digest,
            principal: Principal::new("root").expect("its letters are allowed"),
            scopes: Scopes::ALL,
            ends: None,
            rate: None,
            note: "the first API key".to_owned(),
        };
        [plain(Command::IssueApiKey(root)), plain(Command::SetAnonymousScopes(Scopes::NONE))]
    });
    root.chain([opening(&settings.shop)]).collect()
}

/// The request that opens the shop, under a fresh identity of the ledger.
fn opening(shop: &config::Shop) -> Request {
    let shop = Shop {
        ledger_id: LedgerId(rand::random()),
        first_order_number: shop.first_order_number,
        products: shop.products.clone(),
    };
    Request { key: None, deadline: None, certificate: None, command: Command::Open(shop) }
}

/// The warning for the owner when the shop file is not the one that the ledger was opened with.
pub(crate) fn difference(settings: &Settings, opened: &Shop) -> Option<String> {
    let ours = &settings.shop;
    let number = opened.first_order_number;
    let what = if opened.products != ours.products {
        "has other products than the shop was opened with".to_owned()
    } else if number != ours.first_order_number {
        format!("has another first order number than the shop was opened with ({number})")
    } else {
        return None;
    };
    Some(format!(
        "the shop file ({}) {what}; an open shop is not changed by it: use `oppidum ctl product \
         define`, `price` and `restock`",
        settings.shop_source
    ))
}

/// The warning for the operator when the root key of the settings is not one of this store.
fn unused_root_key(settings: &Settings, access: &Access) -> Option<String> {
    let root = settings.root_key.as_ref()?;
    let is_used = access.keys.contains_key(&root.id);
    (!is_used).then(|| {
        format!(
            "OPPIDUM_ROOT_KEY has no effect: this store does not know API key {}; `oppidum ctl key \
             issue root --as root` makes a root key, `oppidum ctl key anonymous none` closes an \
             open store",
            root.id
        )
    })
}

/// Warns when the shop file or the root key is not the one that the ledger was opened with.
pub(crate) async fn compare(settings: &Arc<Settings>, view: &Arc<View>) {
    if let Some(warning) = view.read(|shop| unused_root_key(settings, shop.access())) {
        tracing::warn!("{warning}");
    }
    let compared = match view.flush().await {
        // Reading and comparing 100,000 products takes tenths of a second.
        Ok(()) if LARGE < view.read(ShopState::product_count) => {
            let settings = settings.clone();
            let own = view.clone();
            view.aside(move || first_difference(&settings, &own)).await
        }
        Ok(()) => first_difference(settings, view),
        Err(error) => Err(error),
    };
    match compared {
        Ok(Some(warning)) => tracing::warn!("{warning}"),
        Ok(None) => {}
        Err(error) => tracing::debug!("cannot compare the shop file: {error}"),
    }
}

/// The warning for the owner, by the block that opened the shop.
fn first_difference(settings: &Settings, view: &View) -> io::Result<Option<String>> {
    let blocks = view.blocks(Index(0), Index(u64::MAX), 1)?;
    let first = blocks.first().and_then(|(_, block)| ledger::block::Block::decode(block).ok());
    let mut records = first.into_iter().flat_map(|block| block.records);
    Ok(records.find_map(|record| match &record.request.command {
        Command::Open(opened) => difference(settings, opened),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use ledger::command::Definition;
    use ledger::terms::{Cents, Name, OrderNumber};

    use super::*;
    use crate::config::tests::three;

    fn product(name: &str) -> Definition {
        let (name, price) = (Name::new(name).unwrap(), Cents::new(1250).unwrap());
        Definition { name, price, stock: 3, restock_to: None }
    }

    #[test]
    fn a_shop_file_that_changed_later_is_pointed_out() {
        let mut settings = three();
        settings.shop.products = vec![product("fox")];
        let Command::Open(opened) = opening(&settings.shop).command else { panic!() };
        assert_eq!(difference(&settings, &opened), None);
        settings.shop.first_order_number = OrderNumber(7);
        assert!(difference(&settings, &opened).unwrap().contains("first order number"));
        settings.shop.products.push(product("bear"));
        let line = difference(&settings, &opened).unwrap();
        assert!(line.contains("oppidum ctl product") && line.contains("a test"), "{line}");
    }
}
