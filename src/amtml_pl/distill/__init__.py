"""Training step: module, step, loss components, costs. The function is `amtml_pl.own_images.distill`."""
