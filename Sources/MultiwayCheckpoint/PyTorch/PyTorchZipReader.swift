public import MultiwayCore

/// Reads the zip archives that `torch.save` has written since PyTorch 1.6, and TorchScript archives' parameters.
public enum PyTorchZipReader: CheckpointReader {
  /// `PyTorch zip`.
  public static let formatName = "PyTorch zip"
  /// What is read.
  public static let summary =
    "`torch.save` since 1.6, re-zipped or not, little- and big-endian; TorchScript archives for their parameters"

  /// True for the first local header of a zip archive.
  public static func recognizes(_ header: RawSpan) -> Bool {
    header.starts(with: [0x50, 0x4B, 0x03, 0x04])
  }

  /// Reads the archive's directory and its pickle; tensor bytes are not touched.
  public static func read(_ file: any ByteSource) throws(CheckpointError) -> Checkpoint {
    do throws(CheckpointError) {
      return try PyTorchArchive(file: file).checkpoint()
    } catch {
      throw error.naming(file)
    }
  }
}
