//! Claims about ingestion.
