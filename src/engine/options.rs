//! How RocksDB is tuned, for production and for the simulator. No behaviour of its own.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options as Rocks, WriteBufferManager,
};

use super::cf::Cf;

/// What the owner of an engine may choose.
#[derive(Clone)]
pub struct Options {
    /// Memory for blocks of table files, shared by all column families.
    pub block_cache_bytes: usize,
    /// Memory for writes that are not in table files yet, in sum over all column families. When it is
    /// full RocksDB flushes by itself.
    pub write_buffer_bytes: usize,
    /// The simulator's file system in memory. With it, nothing is flushed or compacted but on request:
    /// RocksDB's threads run on the real clock, and what they do by themselves cannot be replayed.
    pub mem: Option<rocksdb::Env>,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_cache_bytes: 64 << 20, write_buffer_bytes: 64 << 20, mem: None }
    }
}

impl Options {
    /// Everything in `env`, nothing by itself.
    pub fn in_memory(env: rocksdb::Env) -> Self {
        Self { block_cache_bytes: 8 << 20, write_buffer_bytes: 1 << 30, mem: Some(env) }
    }

    /// Options of the whole database.
    pub(super) fn database(&self) -> Result<Rocks, rocksdb::Error> {
        // There are no setters for these. Without the first, dropping the handle flushes, and a crash that
        // the simulator plays by dropping would lose nothing. The second spares a new store two syncs: its
        // identity is in the manifest as well.
        let mut rocks = Rocks::get_options_from_string(
            &mut Rocks::default(),
            "avoid_flush_during_shutdown=true;write_identity_file=false",
        )?;
        rocks.create_if_missing(true);
        rocks.create_missing_column_families(true);
        rocks.set_atomic_flush(true);
        rocks.set_stats_dump_period_sec(0);
        rocks.set_stats_persist_period_sec(0);
        rocks.set_skip_stats_update_on_db_open(true);
        rocks.set_log_level(LogLevel::Error);
        rocks.set_keep_log_file_num(1);
        rocks.set_max_open_files(4096);
        match &self.mem {
            Some(env) => rocks.set_env(env),
            None => {
                rocks.set_max_background_jobs(2);
                rocks.set_bytes_per_sync(1 << 20);
                let manager =
                    WriteBufferManager::new_write_buffer_manager(self.write_buffer_bytes, false);
                rocks.set_write_buffer_manager(&manager);
            }
        }
        Ok(rocks)
    }

    /// Options of one column family.
    pub(super) fn family(&self, cf: Cf, cache: &Cache) -> Rocks {
        let mut rocks = Rocks::default();
        rocks.set_block_based_table_factory(&self.table(cf, cache));
        rocks.set_write_buffer_size(self.write_buffer_bytes);
        if self.mem.is_some() {
            rocks.set_disable_auto_compactions(true);
            rocks.set_compression_type(DBCompressionType::None);
            // Fourteen nearly empty families, many times over: the default block of a megabyte adds up.
            rocks.set_arena_block_size(16 << 10);
            return rocks;
        }
        rocks.set_arena_block_size(256 << 10);
        rocks.set_level_compaction_dynamic_level_bytes(true);
        rocks.set_target_file_size_base(32 << 20);
        // What was written last is rewritten soon; the deep levels hold most of the bytes.
        rocks.set_compression_per_level(&[
            DBCompressionType::None,
            DBCompressionType::None,
            DBCompressionType::Lz4,
            DBCompressionType::Lz4,
            DBCompressionType::Lz4,
            DBCompressionType::Lz4,
            DBCompressionType::Lz4,
        ]);
        // Compacting the revisions leaves runs of deletions; give their space back automatically.
        rocks.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
        rocks
    }

    fn table(&self, cf: Cf, cache: &Cache) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_block_size(16 << 10);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        if cf == Cf::Head {
            // Every write looks its key up first, and a new key is in no file.
            table.set_bloom_filter(10.0, false);
        }
        table
    }
}
