//! `GET /products` and `GET /stocks`: one product, or a list of them.

use http::StatusCode;
use ledger::api_key::Scopes;

use super::scope_check::{Identified, allowed};
use super::{Api, bad_request};
use crate::answer::{self, Answer};
use crate::classic::{self, Noun};
use crate::limits;

impl Api {
    /// Answers a query of one product by its path.
    pub(super) async fn query(&self, sender: Identified, path: &str) -> Answer {
        match (path.strip_prefix("/products/"), path.strip_prefix("/stocks/")) {
            (Some(name), _) => self.product(sender, Noun::Product, name).await,
            (None, Some(name)) => self.product(sender, Noun::Stock, name).await,
            (None, None) => answer::error(StatusCode::NOT_FOUND, "no such route"),
        }
    }

    pub(super) async fn product(&self, sender: Identified, noun: Noun, segment: &str) -> Answer {
        if let Err(rejection) = allowed(sender, Scopes::QUERY) {
            return *rejection;
        }
        let not_found = || answer::error(StatusCode::NOT_FOUND, noun.not_found());
        let Some(name) = classic::percent_decode(segment) else { return not_found() };
        if ledger::terms::Name::new(&name).is_none() {
            return not_found();
        }
        match self.shared.queries.product(&name).await {
            Ok(told) => {
                let found = match &told.product {
                    Some(product) => answer::json(StatusCode::OK, classic::render_product(product)),
                    None => not_found(),
                };
                let how = match (told.hit, told.stored) {
                    (true, _) => "oppidum; hit",
                    (false, true) => "oppidum; fwd=miss; stored",
                    (false, false) => "oppidum; fwd=miss",
                };
                answer::cached(answer::as_of(found, told.as_of, told.stale), how)
            }
            Err(problem) => answer::problem(&problem),
        }
    }

    pub(super) async fn list(&self, sender: Identified, query: &str) -> Answer {
        if let Err(rejection) = allowed(sender, Scopes::QUERY) {
            return *rejection;
        }
        let mut after = String::new();
        let mut limit = limits::LIST_PRODUCTS_MAX;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (field, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            match (field, classic::percent_decode(&value)) {
                ("after", Some(value)) => after = value.into_owned(),
                ("limit", Some(value)) => match value.parse() {
                    Ok(count) if (1..=limits::LIST_PRODUCTS_MAX).contains(&count) => limit = count,
                    _ => return bad_request("limit must be from 1 to 1000"),
                },
                (_, None) => return bad_request("a percent sign in the query makes no sense"),
                _ => {}
            }
        }
        if !after.is_empty() && ledger::terms::Name::new(&after).is_none() {
            return bad_request("after must be a product name");
        }
        match self.shared.queries.list(&after, limit).await {
            Ok(listed) => {
                let body = classic::render_products(&listed.products);
                let answer = answer::json(StatusCode::OK, body);
                let answer = answer::as_of(answer, listed.as_of, listed.stale);
                answer::cached(answer, "oppidum; fwd=bypass")
            }
            Err(problem) => answer::problem(&problem),
        }
    }
}
