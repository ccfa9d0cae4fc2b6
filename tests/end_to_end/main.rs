//! The real binary, from outside: HTTP, signals, `kill -9`.

mod check;
mod damage;
mod files;
mod full_disk;
mod http;
mod http_keys;
mod http_page;
mod journey;
mod kills;
mod language;
mod mosquitto;
mod mqtt_pressure;
mod mqtt_remote;
mod process;
mod send;
mod watch;
mod watermarks;
