"""Dataset cards, readers and the synthetic scene generator."""
