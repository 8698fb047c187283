//! The views behind the dashboard: each is one panel, and says in its comment what it shows.

/// All of them. The first shows the generation in use, and names it; the others read that one, so
/// that they change all at once.
pub(super) const VIEWS: [&str; 13] = [
    include_str!("banking.sql"),
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
