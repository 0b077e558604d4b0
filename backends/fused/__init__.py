"""What a fused step is, whatever compiles it."""
