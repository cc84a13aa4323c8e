//! What a database holds beside tables, by name: stored functions and external tables.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use slipstream_model::{EntityId, EntityKind, ExternalTable, StoredFunction};
use uuid::Uuid;

use crate::log::SubjectFate;
use crate::{OpError, PutMode};

/// Something that is put under a name, altered as a whole, and dropped.
pub trait StoredEntity: fmt::Debug + Clone + PartialEq {
    /// What it is.
    const KIND: EntityKind;

    /// Its name.
    fn name(&self) -> &str;

    /// Checks what can be told from it alone.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn check(&self) -> Result<(), OpError>;
}

impl StoredEntity for StoredFunction {
    const KIND: EntityKind = EntityKind::Function;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn check(&self) -> Result<(), OpError> {
        Ok(Self::check(self)?)
    }
}

impl StoredEntity for ExternalTable {
    const KIND: EntityKind = EntityKind::ExternalTable;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn check(&self) -> Result<(), OpError> {
        Ok(Self::check(self)?)
    }
}

/// One stored entity at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<E> {
    /// Its id; one dropped and created again has another.
    pub id: EntityId,
    /// What it is.
    pub entity: Arc<E>,
}

/// Entities of one kind, by name and by id. Clones in O(1).
#[derive(Debug, Clone)]
pub(crate) struct StoredSet<E> {
    by_id: OrdMap<EntityId, String>,
    by_name: OrdMap<String, Stored<E>>,
}

impl<E> Default for StoredSet<E> {
    fn default() -> Self {
        Self {
            by_id: OrdMap::new(),
            by_name: OrdMap::new(),
        }
    }
}

impl<E: StoredEntity> StoredSet<E> {
    pub(crate) fn get(&self, name: &str) -> Option<&Stored<E>> {
        self.by_name.get(name)
    }

    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Stored<E>> {
        self.by_name.values()
    }

    pub(crate) fn contains(&self, subject: Uuid) -> bool {
        self.by_id.contains_key(&EntityId::new(subject))
    }

    pub(crate) fn put(&mut self, state: Stored<E>) {
        let name = state.entity.name().to_owned();
        self.by_id.insert(state.id, name.clone());
        self.by_name.insert(name, state);
    }

    /// The subject that a request changes; `None` when there is nothing to do.
    pub(super) fn plan_put(
        &self,
        id: EntityId,
        entity: &Arc<E>,
        mode: PutMode,
    ) -> Result<Option<Uuid>, OpError> {
        entity.check()?;
        let known = self.by_name.get(entity.name());
        let id = match (known, mode) {
            (Some(_), PutMode::Create) => return Err(exists::<E>(entity.name())),
            (Some(_), PutMode::CreateIfNotExists) => return Ok(None),
            (Some(known), _) if known.entity == *entity => return Ok(None),
            (Some(known), _) => known.id,
            (None, PutMode::Alter) => return Err(not_found::<E>(entity.name())),
            (None, _) if id == EntityId::default() || self.by_id.contains_key(&id) => {
                return Err(id_in_use::<E>(id));
            }
            (None, _) => id,
        };
        Ok(Some(id.as_uuid()))
    }

    pub(super) fn plan_drop(&self, name: &str, if_exists: bool) -> Result<Option<Uuid>, OpError> {
        match self.by_name.get(name) {
            Some(known) => Ok(Some(known.id.as_uuid())),
            None if if_exists => Ok(None),
            None => Err(not_found::<E>(name)),
        }
    }

    pub(super) fn apply_put(
        &mut self,
        subject: Uuid,
        entity: Arc<E>,
    ) -> Result<SubjectFate, OpError> {
        let id = EntityId::new(subject);
        let of_name = self.by_name.get(entity.name());
        if of_name.is_some_and(|known| known.id != id) {
            return Err(exists::<E>(entity.name()));
        }
        // An entity keeps its name.
        let of_id = self.by_id.get(&id);
        if of_id.is_some_and(|known| known != entity.name()) {
            return Err(id_in_use::<E>(id));
        }
        self.put(Stored { id, entity });
        Ok(SubjectFate::Lives)
    }

    pub(super) fn apply_drop(&mut self, subject: Uuid) -> Result<SubjectFate, OpError> {
        let name = self.by_id.remove(&EntityId::new(subject));
        let name = name.ok_or_else(|| not_found::<E>(&subject.to_string()))?;
        self.by_name.remove(&name);
        Ok(SubjectFate::Ends)
    }
}

fn exists<E: StoredEntity>(name: &str) -> OpError {
    OpError::EntityExists(E::KIND, name.to_owned())
}

fn not_found<E: StoredEntity>(name: &str) -> OpError {
    OpError::EntityNotFound(E::KIND, name.to_owned())
}

fn id_in_use<E: StoredEntity>(id: EntityId) -> OpError {
    OpError::EntityIdInUse(E::KIND, id)
}
