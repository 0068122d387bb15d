"""Seeds of torch's global generators."""


def seed_torch(seed: int) -> None:
    """Seed the CPU, and GPUs that are in use; numbers are those that follow torch.manual_seed.

    torch.manual_seed remembers each call, with the text of its stack, for every kind of device that is not in
    use: a fifth of the time it takes to load a small image, and memory that grows with each.

    Args:
        seed: of 64 bits at most.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
