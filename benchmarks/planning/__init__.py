"""Plans of made data, from small signals to large volumes, and of the data that nnU-Net's plans are known for."""
