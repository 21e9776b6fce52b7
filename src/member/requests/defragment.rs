//! Defragmentation on request. Space comes back by itself and sizes do not depend on it; on disk it comes
//! back at once. Reads and writes go on meanwhile, unlike in etcd.

use tracing::info;

use crate::error::{Error, Fatal};
use crate::member::Member;
use crate::metrics::{Counted, observe};

impl Member {
    /// Flushes and compacts the store. A disk that fails ends the member.
    pub async fn defragment(&self) -> Result<(), Error> {
        let (env, metrics, engine) = (&self.0.env, &self.0.metrics, self.0.store.engine().clone());
        info!(current_db_size_bytes = engine.total_bytes(), "starting defragment");
        let began = env.now();
        let _counted = Counted::new(&metrics.defrags);
        let work = engine.clone();
        let outcome = env.blocking("defragment", move || work.compact()).await;
        self.fatal_stops(outcome.map_err(Fatal::from))?;
        let took = env.now() - began;
        observe(&metrics.defrag_seconds, took);
        info!(?took, current_db_size_bytes = engine.total_bytes(), "finished defragment");
        Ok(())
    }
}
