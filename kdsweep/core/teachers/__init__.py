"""The teacher: fine-tuning, selection, checks, the artifact and its logits."""
