// How good predicted probabilities are: accuracy, negative log-likelihood, calibration, and how
// much members disagree.
#pragma once
#include <cstdint>
#include <vector>

#include <tutti/tutti.h>

namespace digits {

struct Quality {
  double accuracy = 0;
  double nll = 0;  // mean of -log(probability of the right class)
  double ece =
      0;  // expected calibration error: |accuracy - confidence|, averaged over bins of confidence
};

/// One bin of a reliability diagram.
struct Bin {
  std::int64_t count = 0;
  double confidence = 0;  // mean probability of the predicted class
  double accuracy = 0;
};

inline constexpr int kBins = 15;

/// Equal bins of confidence over (0, 1] for probabilities [N, C] and labels [N].
std::vector<Bin> reliability(const tutti::Tensor& probabilities, const tutti::Tensor& labels,
                             int bins = kBins);

/// Of one model's probabilities [N, C].
Quality quality(const tutti::Tensor& probabilities, const tutti::Tensor& labels);

/// A test picture and how many members took it for each digit.
struct Votes {
  std::int64_t row = 0;
  std::vector<std::int64_t> count;
  double entropy = 0;  // of the shares of votes, in nats
};

/// The `n` pictures with the largest vote entropy, most disputed first, from members' probabilities
/// [M, N, C]. Ties go by the ensemble's uncertainty, then by row.
std::vector<Votes> most_disputed(const tutti::Tensor& probabilities, std::size_t n);

}  // namespace digits
