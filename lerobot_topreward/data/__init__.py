"""A LeRobot dataset as it is read: opening, checking, frames, images, fingerprints."""
