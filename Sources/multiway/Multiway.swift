import ArgumentParser

/// The command line of multiway: one thin file a verb.
@main
struct Multiway: ParsableCommand {}
