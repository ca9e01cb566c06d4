//! The model that all requests of a process share. Its version can be switched while requests run.

use std::sync::{Arc, PoisonError, RwLock};

use crate::model_view::ModelView;

/// Cheap to clone: all clones are one model.
#[derive(Clone)]
pub struct Model(Arc<RwLock<Arc<ModelView>>>);

impl Model {
    pub fn new(view: ModelView) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(view))))
    }

    /// The version that is current now. A request takes it once: its answer is of one version then, and that version stays until the
    /// request drops it. The lock is held for the time of a copy of a pointer.
    pub fn current(&self) -> Arc<ModelView> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the version before. To drop it may take milliseconds: not to be done on a thread that serves requests.
    pub(crate) fn switch(&self, view: ModelView) -> Arc<ModelView> {
        let view = Arc::new(view);
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), view)
    }
}
