"""Studies of the paper that pretrain many models and compare them: attention schemes, adaptive tokens, resolution."""
