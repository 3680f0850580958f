"""Failures that are planted to see whether `cloudml diagnose` names them."""
