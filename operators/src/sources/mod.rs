//! Sources: where events come in. Each hands what it receives to the door and answers its client with what the door says.

pub mod http;
