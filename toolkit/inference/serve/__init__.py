"""`toolkit serve`: a small OpenAI-compatible server on this machine, in front of llama.cpp's own."""
