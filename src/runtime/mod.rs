//! Threads and tasks that drive the engine's machines over the real services.

pub mod handler_group;
pub mod lane;
mod lane_handle;
mod lane_offset;
pub mod lane_status;
mod lane_writing;
mod plan;
mod progress;
pub mod projection;
pub mod reactor_group;
pub mod schemas;
pub mod signing;
