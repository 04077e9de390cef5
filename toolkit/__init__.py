"""Fine-tune a language model to call tools on one cheap GPU, and prove what the training did."""

__version__ = "0.1.0"
