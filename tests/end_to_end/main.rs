//! The real binary, from outside: HTTP, signals, `kill -9`.

mod bench;
mod check;
mod damage;
mod deliveries;
mod files;
mod full_disk;
mod functions;
mod help;
mod hooks;
mod hostile_queries;
mod http;
mod http_keys;

mod journey;
mod kills;
mod language;
mod live;
mod memory;
mod mosquitto;
mod mqtt;
mod mqtt_remote;
mod pages;
mod process;
mod receiver;
mod rest_keys;
mod send;
mod soak;
mod values;
mod watch;
mod watermarks;
mod webhooks;
mod yaml;
