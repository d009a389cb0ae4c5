"""A small random sentence-transformers model, made on the spot, for tests of the embedder's training."""

from __future__ import annotations

import re
from pathlib import Path

from cuadft.retrieval.words import search_words


def make(folder: Path, texts: list[str]) -> Path:
    """Save a BERT of two layers and 32 dimensions whose vocabulary is the texts' words; return its folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    known = sorted(
        {word for text in texts for word in [*search_words(text), *re.findall(r"[^\w\s]|\w+", text.lower())]}
    )
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    plain = folder / "bert"
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(plain)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(plain)
    transformer = Transformer(str(plain))
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"
