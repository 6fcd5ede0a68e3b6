"""Parameters in files: PyTorch's and safetensors files, tensor names, published weights and their download."""
