"""One model, run together: placement, stages, routes, sampling."""
