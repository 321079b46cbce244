//! The dialect: which of the two classic APIs a frontend speaks, and the words in which they
//! differ.

/// Which of the two classic APIs is spoken. They differ in the bodies of orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Stocks: `transaction_number`, and a `type` that is `buy` or `sell`.
    #[default]
    Stock,
    /// Toys: `order_number`, and every order is a buy.
    Toy,
}

/// The word for products in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// `/stocks/…`
    Stock,
    /// `/products/…`
    Product,
}

impl Dialect {
    /// The dialect's name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Toy => "toy",
        }
    }

    /// The field for the number of an order just placed.
    pub(crate) fn number_field(self) -> &'static str {
        match self {
            Self::Stock => "transaction_number",
            Self::Toy => "order_number",
        }
    }

    /// The word for products in paths.
    pub fn noun(self) -> Noun {
        match self {
            Self::Stock => Noun::Stock,
            Self::Toy => Noun::Product,
        }
    }
}

impl Noun {
    /// The message for an unknown product.
    pub fn not_found(self) -> &'static str {
        match self {
            Self::Stock => "stock not found",
            Self::Product => "product not found",
        }
    }
}
