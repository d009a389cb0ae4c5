"""Fine-tune small language models for contract review: one RAG program, many language models, one evaluation."""

__version__ = "0.1.0"
