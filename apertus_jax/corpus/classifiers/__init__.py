"""Classifiers of quality and toxicity: embedders, heads, their training, thresholds as percentiles, and the rules.

One embedding of a document serves every head (docs/reference/data.md §5, §6). Nothing here imports torch unless an
embedder that needs it is built.
"""

from apertus_jax.corpus.classifiers.classifier_folder import Classifier, load_classifier
from apertus_jax.corpus.classifiers.embedder import Embedder, Embedding
from apertus_jax.corpus.classifiers.hashed_ngrams import HashedNgramEmbedding
from apertus_jax.corpus.classifiers.head_training import HeadRecipe, standard_recipe
from apertus_jax.corpus.classifiers.percentiles import PercentileOptions, PercentileSketch, percentile_statistics
from apertus_jax.corpus.classifiers.rules import (
    QUALITY_LANGUAGES,
    TOXICITY_LANGUAGES,
    QualityScoreRule,
    ToxicityRule,
)
from apertus_jax.corpus.classifiers.scoring import ClassifierScoring
from apertus_jax.corpus.classifiers.train_classifier_command import train_classifier
from apertus_jax.corpus.classifiers.transformer_embeddings import TransformerEmbedding

__all__ = [
    "QUALITY_LANGUAGES",
    "TOXICITY_LANGUAGES",
    "Classifier",
    "ClassifierScoring",
    "Embedder",
    "Embedding",
    "HashedNgramEmbedding",
    "HeadRecipe",
    "PercentileOptions",
    "PercentileSketch",
    "QualityScoreRule",
    "ToxicityRule",
    "TransformerEmbedding",
    "load_classifier",
    "percentile_statistics",
    "standard_recipe",
    "train_classifier",
]
