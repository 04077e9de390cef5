"""Running a model on this machine: GGUF files through llama.cpp, model and run folders through transformers."""
