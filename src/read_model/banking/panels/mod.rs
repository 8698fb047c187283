//! The views behind the dashboard: each is one panel, and says in its comment what it shows.

/// All of them; the first names the generation in use.
pub(super) const VIEWS: [&str; 12] = [
    include_str!("banking_event.sql"),
    include_str!("banking_volume_minute.sql"),
    include_str!("banking_fees_minute.sql"),
    include_str!("banking_deposits_withdrawals_minute.sql"),
    include_str!("banking_volume_hour.sql"),
    include_str!("banking_fees_hour.sql"),
    include_str!("banking_deposits_withdrawals_hour.sql"),
    include_str!("banking_volume_day.sql"),
    include_str!("banking_fees_day.sql"),
    include_str!("banking_deposits_withdrawals_day.sql"),
    include_str!("banking_balance_by_type.sql"),
    include_str!("banking_largest_movers.sql"),
];
