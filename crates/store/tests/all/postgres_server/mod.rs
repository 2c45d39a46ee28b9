//! What PostgreSQL adds to the promise: the tables of the Python service, clear words when a server refuses, and
//! servers that stop, die and fall silent.

mod adoption;
mod bulk;
mod odd;
mod opening;
mod outage;
mod relay;
