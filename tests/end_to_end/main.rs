//! The real binary, from outside: HTTP, signals, `kill -9`.

mod check;
mod deliveries;
mod files;
mod hooks;
mod http;
mod http_keys;
mod http_page;
mod journey;
mod kills;
mod language;
mod live;
mod mosquitto;
mod mqtt;
mod mqtt_pressure;
mod mqtt_remote;
mod process;
mod receiver;
mod send;
mod watch;
mod watermarks;
mod webhooks;
