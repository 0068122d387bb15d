"""Gen4Det: five diffusion data engines for object detectors, compared in one workflow."""
