//! The stored functions of a database.

use std::sync::Arc;

use imbl::OrdMap;
use slipstream_model::{FunctionId, FunctionName, StoredFunction};
use uuid::Uuid;

use super::DatabaseRecord as Record;
use crate::log::SubjectFate;
use crate::{OpError, PutMode};

/// One function at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionState {
    /// Its id; a function dropped and created again has another.
    pub id: FunctionId,
    /// What it is.
    pub function: Arc<StoredFunction>,
}

/// Functions by name and by id. Clones in O(1).
#[derive(Debug, Clone, Default)]
pub(crate) struct Functions {
    by_id: OrdMap<FunctionId, FunctionName>,
    by_name: OrdMap<FunctionName, FunctionState>,
}

impl Functions {
    pub(crate) fn get(&self, name: &str) -> Option<&FunctionState> {
        self.by_name.get(name)
    }

    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &FunctionState> {
        self.by_name.values()
    }

    pub(crate) fn contains(&self, subject: Uuid) -> bool {
        self.by_id.contains_key(&FunctionId::new(subject))
    }

    pub(crate) fn put(&mut self, state: FunctionState) {
        let name = state.function.name.clone();
        self.by_id.insert(state.id, name.clone());
        self.by_name.insert(name, state);
    }

    /// The record of a request; `None` when there is nothing to do.
    pub(super) fn plan_put(
        &self,
        id: FunctionId,
        function: Arc<StoredFunction>,
        mode: PutMode,
    ) -> Result<Option<(Uuid, Record)>, OpError> {
        function.check()?;
        let known = self.by_name.get(&function.name);
        let id = match (known, mode) {
            (Some(_), PutMode::Create) => {
                return Err(OpError::FunctionExists(function.name.clone()));
            }
            (Some(_), PutMode::CreateIfNotExists) => return Ok(None),
            (Some(known), _) if known.function == function => return Ok(None),
            (Some(known), _) => known.id,
            (None, PutMode::Alter) => {
                return Err(OpError::FunctionNotFound(function.name.to_string()));
            }
            (None, _) if id == FunctionId::default() || self.by_id.contains_key(&id) => {
                return Err(OpError::FunctionIdInUse(id));
            }
            (None, _) => id,
        };
        Ok(Some((id.as_uuid(), Record::PutFunction(function))))
    }

    pub(super) fn plan_drop(
        &self,
        name: &FunctionName,
        if_exists: bool,
    ) -> Result<Option<(Uuid, Record)>, OpError> {
        match self.by_name.get(name) {
            Some(known) => Ok(Some((known.id.as_uuid(), Record::DropFunction))),
            None if if_exists => Ok(None),
            None => Err(OpError::FunctionNotFound(name.to_string())),
        }
    }

    pub(super) fn apply_put(
        &mut self,
        subject: Uuid,
        function: Arc<StoredFunction>,
    ) -> Result<SubjectFate, OpError> {
        let id = FunctionId::new(subject);
        let of_name = self.by_name.get(&function.name);
        if of_name.is_some_and(|known| known.id != id) {
            return Err(OpError::FunctionExists(function.name.clone()));
        }
        // A function keeps its name.
        if self
            .by_id
            .get(&id)
            .is_some_and(|known| *known != function.name)
        {
            return Err(OpError::FunctionIdInUse(id));
        }
        self.put(FunctionState { id, function });
        Ok(SubjectFate::Lives)
    }

    pub(super) fn apply_drop(&mut self, subject: Uuid) -> Result<SubjectFate, OpError> {
        let name = self.by_id.remove(&FunctionId::new(subject));
        let name = name.ok_or_else(|| OpError::FunctionNotFound(subject.to_string()))?;
        self.by_name.remove(&name);
        Ok(SubjectFate::Ends)
    }
}
