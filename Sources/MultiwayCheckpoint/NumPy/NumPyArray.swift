import MultiwayCore

/// What NumPy's files and pickles have in common.
enum NumPyArray {
  /// An array that fills `storage`; in Fortran order the first index runs fastest.
  static func tensor(
    _ dtype: DType, _ shape: Shape, isFortran: Bool, isBigEndian: Bool, storage: any TensorStorage
  ) -> StoredTensor {
    var strides = shape.contiguousStrides
    if isFortran, let reversed = Shape(checking: shape.dimensions.reversed()) {
      strides = reversed.contiguousStrides.reversed()
    }
    return StoredTensor(
      name: "", dtype: dtype, shape: shape, strides: strides, storage: storage,
      isBigEndian: isBigEndian && dtype.swapWidth > 1)
  }
}
