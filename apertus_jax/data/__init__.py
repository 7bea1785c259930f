"""Data: tokenizer, token store, sample order and batches. Names resolve on first use: importing is cheap."""

from typing import TYPE_CHECKING

from apertus_jax.lazy_imports import resolved_on_first_use

if TYPE_CHECKING:  # what the names are; a test holds it equal to the table below
    from apertus_jax.data.loader.batch_loader import BatchLoader as BatchLoader
    from apertus_jax.data.loader.batch_loader import ReadAhead as ReadAhead
    from apertus_jax.data.loader.device_batches import DeviceBatches as DeviceBatches
    from apertus_jax.data.loader.packing import segment_ids_and_positions as segment_ids_and_positions
    from apertus_jax.data.provenance.tombstoned_documents import find_tombstoned as find_tombstoned
    from apertus_jax.data.provenance.tombstoned_documents import open_tombstones as open_tombstones
    from apertus_jax.data.provenance.tombstoned_documents import store_is_older_than as store_is_older_than
    from apertus_jax.data.sample_order.batch_schedule import BatchSchedule as BatchSchedule
    from apertus_jax.data.sample_order.mixture import Mixture as Mixture
    from apertus_jax.data.sample_order.mixture import MixtureStage as MixtureStage
    from apertus_jax.data.sample_order.sample_index import WindowIndex as WindowIndex
    from apertus_jax.data.sample_order.sample_stream import MegatronMixture as MegatronMixture
    from apertus_jax.data.sample_order.sample_stream import MegatronStage as MegatronStage
    from apertus_jax.data.sample_order.sample_stream import SampleStream as SampleStream
    from apertus_jax.data.sample_order.sample_stream import build_megatron_stream as build_megatron_stream
    from apertus_jax.data.sample_order.sample_stream import build_stream as build_stream
    from apertus_jax.data.sample_order.sample_stream import stream_of_store as stream_of_store
    from apertus_jax.data.store.held_out_split import check_no_shared_13grams as check_no_shared_13grams
    from apertus_jax.data.store.held_out_split import check_store as check_store
    from apertus_jax.data.store.token_bytes import VocabularyText as VocabularyText
    from apertus_jax.data.store.token_bytes import token_pieces as token_pieces
    from apertus_jax.data.store.token_bytes import vocabulary_text as vocabulary_text
    from apertus_jax.data.store.token_store import TokenSource as TokenSource
    from apertus_jax.data.store.token_store import TokenStore as TokenStore
    from apertus_jax.data.store.tokenize_command import tokenize as tokenize
    from apertus_jax.data.tokenizer.bpe import Tokenizer as Tokenizer
    from apertus_jax.data.tokenizer.bpe import train_bpe as train_bpe
    from apertus_jax.data.tokenizer.tekken import apertus_tokenizer as apertus_tokenizer
else:
    __getattr__, __dir__, __all__ = resolved_on_first_use(
        __name__,
        {
            "apertus_jax.data.sample_order.batch_schedule": ("BatchSchedule",),
            "apertus_jax.data.store.held_out_split": ("check_no_shared_13grams", "check_store"),
            "apertus_jax.data.loader.device_batches": ("DeviceBatches",),
            "apertus_jax.data.loader.batch_loader": ("BatchLoader", "ReadAhead"),
            "apertus_jax.data.sample_order.mixture": ("Mixture", "MixtureStage"),
            "apertus_jax.data.loader.packing": ("segment_ids_and_positions",),
            "apertus_jax.data.sample_order.sample_index": ("WindowIndex",),
            "apertus_jax.data.sample_order.sample_stream": (
                "MegatronMixture",
                "MegatronStage",
                "SampleStream",
                "build_megatron_stream",
                "build_stream",
                "stream_of_store",
            ),
            "apertus_jax.data.tokenizer.tekken": ("apertus_tokenizer",),
            "apertus_jax.data.provenance.tombstoned_documents": (
                "find_tombstoned",
                "open_tombstones",
                "store_is_older_than",
            ),
            "apertus_jax.data.store.token_store": ("TokenSource", "TokenStore"),
            "apertus_jax.data.store.tokenize_command": ("tokenize",),
            "apertus_jax.data.tokenizer.bpe": ("Tokenizer", "train_bpe"),
            "apertus_jax.data.store.token_bytes": ("VocabularyText", "token_pieces", "vocabulary_text"),
        },
    )
