// Placeholder so that the package resolves; replaced in the next commits.
