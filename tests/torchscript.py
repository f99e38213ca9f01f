"""TorchScript archives with the layout of OpenAI's `ViT-B-32.pt`."""

import torch


class _Holder(torch.nn.Module):
    """Holds tensors by nested names. Its method puts code into the archive."""

    def forward(self, x):
        return x + 1


def save(state, path):
    """Write a state dict as the parameters and buffers of scripted modules."""
    root = _Holder()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, _Holder())
            module = getattr(module, parent)
        tensor = torch.as_tensor(tensor)
        if tensor.is_floating_point():
            module.register_parameter(leaf, torch.nn.Parameter(tensor, False))
        else:
            module.register_buffer(leaf, tensor)
    torch.jit.save(torch.jit.script(root), path)
