import COpenBLAS
import MultiwayCore

/// Where a matrix lies in an array: row `i` starts at `offset + i · stride`.
struct MatrixPlace {
  var offset = 0
  var rows: Int
  var columns: Int
  var stride: Int

  /// A matrix that fills an array.
  init(rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
    stride = columns
  }

  /// A matrix inside another one.
  init(offset: Int, rows: Int, columns: Int, stride: Int) {
    self.offset = offset
    self.rows = rows
    self.columns = columns
    self.stride = stride
  }

  fileprivate func requireInside(_ count: Int) {
    precondition(offset >= 0 && rows >= 0 && columns >= 0 && stride >= columns)
    precondition(rows == 0 || offset + (rows - 1) * stride + columns <= count, "the matrix leaves its array")
  }
}

/// Matrix products of OpenBLAS: the only calls of C here, every extent checked before them.
enum BLAS {
  /// Ends the threads that poll for work until there is some.
  static func endThreads() { openblas_end_threads() }

  /// Sets the number of threads of the whole process.
  static func setThreads(_ count: Int) { openblas_set_num_threads(Int32(clamping: max(1, count))) }

  /// result = left · rightᵀ with right [n, k] where `transposesRight`, left · right with right [k, n] otherwise.
  static func multiply(
    _ left: [Float], _ leftPlace: MatrixPlace, _ right: [Float], _ rightPlace: MatrixPlace, transposesRight: Bool,
    into result: inout [Float], _ resultPlace: MatrixPlace
  ) throws(ReferenceError) {
    leftPlace.requireInside(left.count)
    rightPlace.requireInside(right.count)
    resultPlace.requireInside(result.count)
    let sizes = try Sizes(leftPlace, rightPlace, resultPlace, transposesRight: transposesRight)
    guard sizes.m > 0, sizes.n > 0 else { return }
    unsafe left.withUnsafeBufferPointer { a in
      unsafe right.withUnsafeBufferPointer { b in
        unsafe result.withUnsafeMutableBufferPointer { c in
          guard let a = a.baseAddress, let b = b.baseAddress, let c = c.baseAddress else { return }
          unsafe cblas_sgemm(
            CblasRowMajor, CblasNoTrans, transposesRight ? CblasTrans : CblasNoTrans, sizes.m, sizes.n, sizes.k, 1,
            a + leftPlace.offset, sizes.leftStride, b + rightPlace.offset, sizes.rightStride, 0,
            c + resultPlace.offset, sizes.resultStride)
        }
      }
    }
  }

  /// left [m, k] · right [n, k]ᵀ in double precision, which is exact for integers up to 2⁵³.
  static func multiplyTransposed(
    _ left: [Double], _ right: [Double], m: Int, n: Int, k: Int
  ) throws(ReferenceError) -> [Double] {
    let places = (MatrixPlace(rows: m, columns: k), MatrixPlace(rows: n, columns: k), MatrixPlace(rows: m, columns: n))
    var result = [Double](repeating: 0, count: m * n)
    places.0.requireInside(left.count)
    places.1.requireInside(right.count)
    let sizes = try Sizes(places.0, places.1, places.2, transposesRight: true)
    guard m > 0, n > 0 else { return result }
    unsafe left.withUnsafeBufferPointer { a in
      unsafe right.withUnsafeBufferPointer { b in
        unsafe result.withUnsafeMutableBufferPointer { c in
          unsafe cblas_dgemm(
            CblasRowMajor, CblasNoTrans, CblasTrans, sizes.m, sizes.n, sizes.k, 1, a.baseAddress, sizes.leftStride,
            b.baseAddress, sizes.rightStride, 0, c.baseAddress, sizes.resultStride)
        }
      }
    }
    return result
  }

  /// The sizes of a product as the C interface takes them.
  private struct Sizes {
    let m, n, k, leftStride, rightStride, resultStride: Int32

    init(
      _ left: MatrixPlace, _ right: MatrixPlace, _ result: MatrixPlace, transposesRight: Bool
    ) throws(ReferenceError) {
      precondition(left.columns == (transposesRight ? right.columns : right.rows), "the inner sizes differ")
      precondition(result.rows == left.rows && result.columns == (transposesRight ? right.rows : right.columns))
      guard let m = Int32(exactly: result.rows), let n = Int32(exactly: result.columns),
        let k = Int32(exactly: left.columns), let leftStride = Int32(exactly: max(1, left.stride)),
        let rightStride = Int32(exactly: max(1, right.stride)), let resultStride = Int32(exactly: max(1, result.stride))
      else {
        throw ReferenceError(
          .tooLarge, "a product of \(left.rows)×\(left.columns) and \(right.rows)×\(right.columns)",
          expected: "sizes below 2^31")
      }
      (self.m, self.n, self.k) = (m, n, k)
      (self.leftStride, self.rightStride, self.resultStride) = (leftStride, rightStride, resultStride)
    }
  }
}
