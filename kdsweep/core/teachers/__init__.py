"""The teacher: fine-tuning, selection, checks, publishing, the artifact and its logits."""
