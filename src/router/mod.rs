//! Owns: topics → subscribers: exact, wildcard trie, interest of shards, the fan-out job.
