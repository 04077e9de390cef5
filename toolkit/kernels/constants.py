"""What kernels and those who plan for them both go by. Imports nothing."""

PACKED_LOGITS = 1 << 26  # logits that the loss over packed rows holds at one time on a GPU
FLOAT8_CAPABILITY = (8, 9)  # the first compute capability with float8 products: Ada, Hopper and newer
