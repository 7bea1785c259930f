"""Data: tokenizer, token store, order and batches. Names are resolved on first use, so importing this is cheap."""

from apertus_jax.lazy_names import resolved_on_first_use

__getattr__, __dir__, __all__ = resolved_on_first_use(
    __name__,
    {
        "apertus_jax.data.batch_schedule": ("BatchSchedule",),
        "apertus_jax.data.held_out": ("check_no_shared_13grams", "check_store"),
        "apertus_jax.data.device_batches": ("DeviceBatches",),
        "apertus_jax.data.loader": ("BatchLoader", "ReadAhead"),
        "apertus_jax.data.mixture": ("Mixture", "MixtureStage"),
        "apertus_jax.data.packing": ("segment_ids_and_positions",),
        "apertus_jax.data.sample_index": ("WindowIndex",),
        "apertus_jax.data.sample_stream": ("MegatronStage", "SampleStream", "build_megatron_stream", "build_stream"),
        "apertus_jax.data.store_stream": ("MegatronMixture", "stream_of_store"),
        "apertus_jax.data.tekken": ("apertus_tokenizer",),
        "apertus_jax.data.tombstoned_documents": ("find_tombstoned", "open_tombstones", "store_is_older_than"),
        "apertus_jax.data.token_store": ("TokenSource", "TokenStore"),
        "apertus_jax.data.tokenize_command": ("tokenize",),
        "apertus_jax.data.tokenizer": ("Tokenizer", "train_bpe"),
        "apertus_jax.data.vocabulary_pieces": ("VocabularyText", "token_pieces", "vocabulary_text"),
    },
)
