"""From a trained adapter to files that run elsewhere: merged safetensors, GGUF, a LoRA GGUF, an Ollama Modelfile."""
