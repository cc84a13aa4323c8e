//! The doors of a node, and the shell around it.
//!
//! Every door (HTTP, Arrow Flight SQL) translates a request, hands it to the [`Engine`] in the
//! middle, and streams the answer. No door has logic of its own; this crate knows neither leader
//! nor follower.
//!
//! * [`Engine`] is what a node is, behind its doors.
//! * [`Gate`] finds out who asks; [`AuthorizedEngine`] is the node as they may use it.
//! * [`NodeServer`] takes the ports and serves.
//! * [`ServiceError`] is every failure, with one table that says what each door calls it.
//! * [`settings`] and [`runtime`] are what both programs share: flags, files, environment, clock,
//!   signals, logging.

mod access;
pub mod arrow_ipc;
mod client;
mod command;
mod engine;
mod error;
mod flight;
mod gate;
mod http;
mod metrics;
mod principals;
pub mod runtime;
mod server;
pub mod settings;
mod sharing;
mod tokens;
pub mod wire;

pub use access::{Access, Caller, ClusterPermission, Permission};
pub use engine::{
    Answer, CacheDescription, CachingPreview, Capacity, CollectedExtent, CollectedReason,
    DatabaseChange, DatabaseReadiness, Description, Engine, GarbageBlocker, GarbageReason, HotSet,
    IngestFormat, IngestReceipt, IngestRequest, IngestSource, NodeIdentity, NodeRole, PinChange,
    PinnedVersion, Readiness, RecoveredExtent, Reject, Skipped, SqlRequest, Streaming, TableMode,
    TextOptions, UndoDropTable, freshness_at,
};
pub use error::{ErrorKind, ServiceError};
pub use gate::{AuthorizedEngine, Gate, caller_of, visitor_of};
#[doc(hidden)]
pub use http::fuzzing;
pub use server::{NodeServer, ServeError, ServerOptions};
pub use sharing::{
    AttachRequest, AttachedDatabase, Attachment, DatabaseDescription, DatabaseSource,
    FollowerDatabase, FollowerDescription, Invitation, InvitationDescription, InviteRequest,
    ProvisioningError, ProvisioningState, ShareOrigin,
};
pub use tokens::{NewToken, TokenFile, TokenFileError, TokenRecord, Tokens};
