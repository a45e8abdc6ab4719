// The report: HTML and SVG by hand. Colours are CSS variables, so that the charts follow light and
// dark mode.
#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <sstream>
#include <utility>

namespace digits {

Spread::Spread(const std::vector<double>& values)
    : mean(0),
      min(*std::min_element(values.begin(), values.end())),
      max(*std::max_element(values.begin(), values.end())) {
  for (double v : values) mean += v / static_cast<double>(values.size());
}

Spread Results::member(double Quality::*field) const {
  std::vector<double> values;
  for (const Quality& q : members) values.push_back(q.*field);
  return Spread(values);
}

namespace {

// ---- text

std::string fixed(double v, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}

std::string percent(double v, int digits = 1) { return fixed(100 * v, digits) + "&#8201;%"; }

std::string seconds(double v) {
  return v < 1 ? fixed(1000 * v, v < 0.1 ? 1 : 0) + "&#8201;ms" : fixed(v, 2) + "&#8201;s";
}

// Text as HTML shows it; bytes outside printable ASCII become "?".
std::string escaped(const std::string& text) {
  std::string s;
  for (char c : text) {
    if (c == '<')
      s += "&lt;";
    else if (c == '&')
      s += "&amp;";
    else if (c == '>')
      s += "&gt;";
    else
      s += c >= ' ' && c <= '~' ? c : '?';
  }
  return s;
}

// ---- charts

/// One axis: numbers to pixels, and where its marks are.
struct Axis {
  enum class Kind { plain, whole, log };  // whole: marks at integers only
  double low, high;
  Kind kind = Kind::plain;

  double place(double v) const {  // 0 at the low end, 1 at the high end
    if (!std::isfinite(v)) return 1;
    const auto f = [&](double x) { return kind == Kind::log ? std::log10(x) : x; };
    return (f(std::clamp(v, low, high)) - f(low)) / (f(high) - f(low));
  }
  std::vector<double> marks() const {
    std::vector<double> r;
    if (kind == Kind::log) {
      for (double p = std::pow(10, std::floor(std::log10(low))); p <= high; p *= 10)
        for (double k : {1.0, 2.0, 5.0})
          if (k * p >= low && k * p <= high && (k == 1 || high / low < 50)) r.push_back(k * p);
      return r;
    }
    const double rough = (high - low) / 5, unit = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * unit;
    for (double k : {5.0, 2.0, 1.0})
      if (k * unit >= rough * 0.999) step = k * unit;
    if (kind == Kind::whole) step = std::max(step, 1.0);
    for (double v = std::ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step)
      r.push_back(std::abs(v) < 1e-9 * step ? 0 : v);
    return r;
  }
};

using Points = std::vector<std::pair<double, double>>;

/// A chart with its frame, marks and grid; what is drawn into it is clipped by Axis.
class Chart {
 public:
  using Label = std::function<std::string(double)>;

  Chart(Axis x, Axis y, const std::string& x_title, const std::string& y_title,
        const Label& x_label, const Label& y_label, const std::string& description,
        double height = 300)
      : x_(x), y_(y), height_(height) {
    svg_ << "<svg viewBox=\"0 0 " << kWidth << ' ' << height_ << "\" role=\"img\" aria-label=\""
         << description << "\">\n";
    for (double v : y_.marks()) {
      const std::string at = fixed(py(v), 1);
      svg_ << "<line class=\"grid\" x1=\"" << kLeft << "\" x2=\"" << kWidth - kRight << "\" y1=\""
           << at << "\" y2=\"" << at << "\"/><text x=\"" << kLeft - 8 << "\" y=\""
           << fixed(py(v) + 4, 1) << "\" text-anchor=\"end\">" << y_label(v) << "</text>\n";
    }
    for (double v : x_.marks())
      svg_ << "<text x=\"" << fixed(px(v), 1) << "\" y=\"" << height_ - kBottom + 18
           << "\" text-anchor=\"middle\">" << x_label(v) << "</text>\n";
    svg_ << "<line class=\"axis\" x1=\"" << kLeft << "\" x2=\"" << kWidth - kRight << "\" y1=\""
         << height_ - kBottom << "\" y2=\"" << height_ - kBottom
         << "\"/>\n<text class=\"title\" x=\"" << (kLeft + kWidth - kRight) / 2 << "\" y=\""
         << height_ - 6 << "\" text-anchor=\"middle\">" << x_title
         << "</text>\n<text class=\"title\" transform=\"translate(13 "
         << (kTop + height_ - kBottom) / 2 << ") rotate(-90)\" text-anchor=\"middle\">" << y_title
         << "</text>\n";
  }

  void band(const Points& low, const Points& high, const char* style) {
    svg_ << "<polygon class=\"" << style << "\" points=\"";
    for (const auto& [x, y] : low) svg_ << fixed(px(x), 1) << ',' << fixed(py(y), 1) << ' ';
    for (auto p = high.rbegin(); p != high.rend(); ++p)
      svg_ << fixed(px(p->first), 1) << ',' << fixed(py(p->second), 1) << ' ';
    svg_ << "\"/>\n";
  }
  void line(const Points& points, const char* style) {
    svg_ << "<polyline class=\"" << style << "\" points=\"";
    for (const auto& [x, y] : points) svg_ << fixed(px(x), 1) << ',' << fixed(py(y), 1) << ' ';
    svg_ << "\"/>\n";
    if (points.size() == 1) dot(points[0].first, points[0].second, 3.5, style, "");
  }
  void dot(double x, double y, double radius, const std::string& style, const std::string& tip) {
    svg_ << "<circle class=\"" << style << "\" cx=\"" << fixed(px(x), 1) << "\" cy=\""
         << fixed(py(y), 1) << "\" r=\"" << fixed(radius, 1) << "\"><title>" << tip
         << "</title></circle>\n";
  }
  void bar(double x0, double x1, double y, const char* style, const std::string& tip) {
    svg_ << "<rect class=\"" << style << "\" x=\"" << fixed(px(x0) + 1, 1) << "\" y=\""
         << fixed(py(y), 1) << "\" width=\"" << fixed(std::max(px(x1) - px(x0) - 2, 1.0), 1)
         << "\" height=\"" << fixed(py(y_.low) - py(y), 1) << "\"><title>" << tip
         << "</title></rect>\n";
  }
  void text(double x, double y, const char* anchor, const std::string& what,
            const char* style = "") {
    svg_ << "<text class=\"" << style << "\" x=\"" << fixed(px(x), 1) << "\" y=\""
         << fixed(py(y), 1) << "\" text-anchor=\"" << anchor << "\">" << what << "</text>\n";
  }
  std::string done() {
    svg_ << "</svg>\n";
    return svg_.str();
  }

 private:
  static constexpr double kWidth = 460, kLeft = 66, kRight = 26, kTop = 12, kBottom = 44;
  double px(double v) const { return kLeft + x_.place(v) * (kWidth - kRight - kLeft); }
  double py(double v) const { return height_ - kBottom - y_.place(v) * (height_ - kBottom - kTop); }

  Axis x_, y_;
  double height_;
  std::ostringstream svg_;
};

struct LegendEntry {
  const char *style, *text;
};
std::string legend(std::initializer_list<LegendEntry> entries) {
  std::string s = "<p class=\"legend\">";
  for (const LegendEntry& e : entries)
    s += std::string("<span><i class=\"") + e.style + "\"></i>" + e.text + "</span> ";
  return s + "</p>\n";
}

std::string figure(const std::string& title, const std::string& body, const std::string& caption) {
  return "<figure><h3>" + title + "</h3>\n" + body + "<figcaption>" + caption +
         "</figcaption></figure>\n";
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto i = static_cast<std::size_t>(at);
  const double next = values[std::min(i + 1, values.size() - 1)];
  return values[i] + (at - static_cast<double>(i)) * (next - values[i]);
}

/// Mean and band over the members, epoch by epoch. Small ensembles show all members, others leave
/// out the outer tenths.
struct Curve {
  Curve(const std::vector<Epoch>& epochs, std::vector<double> Epoch::*field) {
    for (std::size_t e = 0; e < epochs.size(); ++e) {
      const std::vector<double>& v = epochs[e].*field;
      const double q = v.size() < 10 ? 0 : 0.1, x = static_cast<double>(e + 1);
      mean.emplace_back(x, Spread(v).mean);
      low.emplace_back(x, quantile(v, q));
      high.emplace_back(x, quantile(v, 1 - q));
    }
  }
  Points mean, low, high;
};

const char* band_name(const Results& r) {
  return r.members.size() < 10 ? "all members" : "80 % of members";
}

Axis epoch_axis(const Results& r) {
  return {1, std::max(2.0, static_cast<double>(r.epochs.size())), Axis::Kind::whole};
}

std::string whole(double v) { return fixed(v, 0); }

std::string loss_chart(const Results& r) {
  const Curve curve(r.epochs, &Epoch::loss);
  double low = 1e30, high = 0;
  for (const auto& [x, y] : curve.low)
    if (y > 0) low = std::min(low, y);
  for (const auto& [x, y] : curve.high)
    if (std::isfinite(y)) high = std::max(high, y);
  if (!(low < high)) low = high / 2;
  if (!(high > 0)) low = 0.1, high = 1;
  const auto label = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", v);
    return std::string(text);
  };
  Chart chart(epoch_axis(r), {low / 1.2, high * 1.2, Axis::Kind::log}, "epoch", "training loss",
              whole, label, "Training loss by epoch");
  chart.band(curve.low, curve.high, "band");
  chart.line(curve.mean, "line member");
  return figure("Training loss",
                legend({{"member", "mean member"}, {"band", band_name(r)}}) + chart.done(),
                "Cross-entropy on each member's bootstrap sample, logarithmic scale.");
}

std::string accuracy_chart(const Results& r) {
  const Curve curve(r.epochs, &Epoch::accuracy);
  Points ensemble;
  double low = 1;
  for (std::size_t e = 0; e < r.epochs.size(); ++e) {
    ensemble.emplace_back(static_cast<double>(e + 1), r.epochs[e].ensemble_accuracy);
    low = std::min({low, curve.low[e].second, r.epochs[e].ensemble_accuracy});
  }
  low = std::max(0.0, std::floor(low * 20 - 1e-9) / 20);
  Chart chart(
      epoch_axis(r), {low, 1}, "epoch", "test accuracy", whole,
      [](double v) { return percent(v, 0); }, "Test accuracy by epoch");
  chart.band(curve.low, curve.high, "band");
  chart.line(curve.mean, "line member");
  chart.line(ensemble, "line ensemble");
  return figure(
      "Test accuracy",
      legend({{"ensemble", "ensemble"}, {"member", "mean member"}, {"band", band_name(r)}}) +
          chart.done(),
      "The ensemble averages the members' probabilities.");
}

std::string reliability_chart(const Results& r) {
  constexpr std::int64_t kFew = 5;  // fewer predictions say little
  const auto label = [](double v) { return percent(v, 0); };
  Chart chart({0, 1}, {0, 1}, "confidence", "accuracy", label, label, "Accuracy against confidence",
              380);
  chart.line({{0, 0}, {1, 1}}, "diagonal");
  const auto draw = [&](const std::vector<Bin>& bins, const char* style, const char* who) {
    double total = 0;
    for (const Bin& b : bins) total += static_cast<double>(b.count);
    Points points;
    for (const Bin& b : bins)
      if (b.count >= kFew) points.emplace_back(b.confidence, b.accuracy);
    if (points.size() > 1) chart.line(points, (std::string("line thin ") + style).c_str());
    for (const Bin& b : bins)
      if (b.count > 0)
        chart.dot(b.confidence, b.accuracy, 3 + 8 * std::sqrt(static_cast<double>(b.count) / total),
                  std::string(b.count < kFew ? "few " : "") + style,
                  std::string(who) + ": confidence " + percent(b.confidence) + ", accuracy " +
                      percent(b.accuracy) + ", " + std::to_string(b.count) + " predictions");
  };
  draw(r.member_bins, "member", "members");
  draw(r.ensemble_bins, "ensemble", "ensemble");
  return figure(
      "Reliability",
      legend({{"ensemble", "ensemble"},
              {"member", "members, pooled"},
              {"diagonal", "perfectly calibrated"}}) +
          chart.done(),
      "Predictions in " + std::to_string(kBins) +
          " bins of confidence; the area of a point grows with its share of the predictions. "
          "Hollow points stand for fewer than " +
          std::to_string(kFew) + ". Below the diagonal a model is too sure of itself. ECE " +
          fixed(r.member(&Quality::ece).mean, 4) + " for the mean member, " +
          fixed(r.ensemble.ece, 4) + " for the ensemble.");
}

std::string member_histogram(const Results& r) {
  const double rows = static_cast<double>(r.test.size());
  std::map<std::int64_t, std::int64_t> count;  // by right answers
  for (const Quality& q : r.members) ++count[std::llround(q.accuracy * rows)];
  const std::int64_t ensemble = std::llround(r.ensemble.accuracy * rows);
  const std::int64_t first = std::min(count.begin()->first, ensemble) - 1;
  const std::int64_t last = std::max(count.rbegin()->first, ensemble) + 1;
  const std::int64_t width = std::max<std::int64_t>(1, (last - first + 14) / 15);
  std::map<std::int64_t, std::int64_t> bins;
  std::int64_t most = 1;
  for (const auto& [right, n] : count) most = std::max(most, bins[(right - first) / width] += n);

  const double low = static_cast<double>(first) / rows,
               high = static_cast<double>(last + width) / rows;
  const double top = static_cast<double>(most) * 1.25;
  Chart chart(
      {low, high}, {0, std::max(top, 2.0), Axis::Kind::whole}, "test accuracy", "members",
      [](double v) { return percent(v); }, whole, "Accuracies of the members", 380);
  for (const auto& [bin, n] : bins) {
    const double from = static_cast<double>(first + bin * width);
    chart.bar((from - 0.5) / rows, (from + static_cast<double>(width) - 0.5) / rows,
              static_cast<double>(n), "bar member", std::to_string(n) + " members");
  }
  chart.line({{r.ensemble.accuracy, 0}, {r.ensemble.accuracy, top * 0.93}}, "line ensemble");
  const bool right_half = r.ensemble.accuracy > (low + high) / 2;
  chart.text(r.ensemble.accuracy, top * 0.96, right_half ? "end" : "start",
             "ensemble " + percent(r.ensemble.accuracy, 2), "strong");
  return figure("Members and ensemble",
                legend({{"ensemble", "ensemble"}, {"member block", "members"}}) + chart.done(),
                "How many members reach which accuracy on the " + std::to_string(r.test.size()) +
                    " test digits.");
}

// ---- the disputed digits

std::string picture(const std::vector<double>& pixels, std::size_t row) {
  std::ostringstream s;
  s << "<svg class=\"digit\" viewBox=\"0 0 8 8\" role=\"img\" aria-label=\"picture\">";
  for (std::size_t p = 0; p < kPixels; ++p) {
    const double v = pixels[row * kPixels + p] / kWhite;
    if (v > 0)
      s << "<rect x=\"" << p % kSide << "\" y=\"" << p / kSide
        << "\" width=\"1.02\" height=\"1.02\" opacity=\"" << fixed(v, 2) << "\"/>";
  }
  s << "</svg>";
  return s.str();
}

std::string vote_bars(const Votes& v, std::int64_t right) {
  constexpr double kMargin = 10, kWidth = 170, kHeight = 64, kStep = kWidth / kClasses;
  const double most = static_cast<double>(*std::max_element(v.count.begin(), v.count.end()));
  std::ostringstream s;
  s << "<svg class=\"votes\" viewBox=\"" << -kMargin << " 0 " << kWidth + 2 * kMargin << ' '
    << kHeight + 28 << "\" role=\"img\" aria-label=\"votes\">";
  for (std::size_t c = 0; c < v.count.size(); ++c) {
    const double middle = (static_cast<double>(c) + 0.5) * kStep;
    const double height = static_cast<double>(v.count[c]) / most * kHeight;
    const bool is_right = static_cast<std::int64_t>(c) == right;
    if (v.count[c] > 0)
      s << "<rect class=\"" << (is_right ? "right" : "wrong") << "\" x=\"" << fixed(middle - 6, 1)
        << "\" y=\"" << fixed(kHeight + 12 - height, 1) << "\" width=\"12\" height=\""
        << fixed(height, 1) << "\"/><text class=\"" << (most >= 100 ? "dense" : "") << "\" x=\""
        << fixed(middle, 1) << "\" y=\"" << fixed(kHeight + 9 - height, 1) << "\">" << v.count[c]
        << "</text>";
    s << "<text class=\"" << (is_right ? "strong" : "") << "\" x=\"" << fixed(middle, 1)
      << "\" y=\"" << kHeight + 26 << "\">" << c << "</text>";
  }
  s << "<line class=\"axis\" x1=\"0\" x2=\"" << kWidth << "\" y1=\"" << kHeight + 12.5 << "\" y2=\""
    << kHeight + 12.5 << "\"/></svg>";
  return s.str();
}

std::string disputed_digits(const Results& r) {
  const auto pixels = r.test.pixels.to_vector<double>();
  const auto labels = r.test.labels.to_vector<std::int64_t>();
  std::string s = "<div class=\"cards\">\n";
  for (const Votes& v : r.disputed) {
    const auto row = static_cast<std::size_t>(v.row);
    const bool correct = r.ensemble_votes[row] == labels[row];
    s += "<div class=\"card\">" + picture(pixels, row) + "<p>is a <b>" +
         std::to_string(labels[row]) + "</b><br/>ensemble says <b class=\"" +
         (correct ? "yes" : "no") + "\">" + std::to_string(r.ensemble_votes[row]) +
         (correct ? " &#10003;" : " &#10007;") + "</b></p>" + vote_bars(v, labels[row]) +
         "</div>\n";
  }
  return s + "</div>\n";
}

// ---- tables

std::string summary_table(const Results& r) {
  std::string s =
      "<table><thead><tr><th></th><th>mean "
      "member</th><th>lowest</th><th>highest</th><th>ensemble</th></tr></thead>"
      "<tbody>\n";
  const auto row = [&](const char* name, double Quality::*field) {
    const Spread m = r.member(field);
    s += std::string("<tr><th>") + name + "</th><td>" + fixed(m.mean, 4) + "</td><td>" +
         fixed(m.min, 4) + "</td><td>" + fixed(m.max, 4) + "</td><td class=\"together\">" +
         fixed(r.ensemble.*field, 4) + "</td></tr>\n";
  };
  row("accuracy", &Quality::accuracy);
  row("negative log-likelihood", &Quality::nll);
  row("expected calibration error", &Quality::ece);
  return s + "</tbody></table>\n";
}

std::string time_table(const Results& r) {
  const Times& t = r.times;
  std::string s =
      "<table><thead><tr><th></th><th>per epoch</th><th>against the "
      "loop</th></tr></thead><tbody>\n";
  const auto row = [&](const std::string& name, double time) {
    s += "<tr><th>" + name + "</th><td>" + seconds(time) + "</td><td>" + fixed(t.loop / time, 2) +
         "&#215;</td></tr>\n";
  };
  const auto on = [](int n) {
    return n == 1 ? std::string("1 thread") : std::to_string(n) + " threads";
  };
  row("all members at once (vmap), " + on(t.threads), t.vmapped);
  if (t.threads > 1) row("all members at once (vmap), 1 thread", t.vmapped_one_thread);
  row("one member after another, " + on(t.threads), t.loop);
  return s + "</tbody></table>\n";
}

std::string settings_list(const Results& r) {
  const Settings& s = r.settings;
  char rate[32];
  std::snprintf(rate, sizeof rate, "%g", s.learning_rate);
  std::string out = "<dl>";
  const auto item = [&](const char* name, const std::string& value) {
    out += std::string("<div><dt>") + name + "</dt><dd>" + value + "</dd></div>";
  };
  item("members", std::to_string(s.members));
  item("network",
       "64&#8201;&#8211;&#8201;" + std::to_string(s.hidden) + "&#8201;&#8211;&#8201;10, ReLU");
  item("epochs", std::to_string(s.epochs));
  item("batch", std::to_string(s.batch));
  item("optimizer", std::string("Adam, rate ") + rate);
  item("seed", std::to_string(s.seed));
  item("training rows", std::to_string(r.train_rows));
  item("test rows", std::to_string(r.test.size()));
  item("data", escaped(s.data));
  item("tutti", escaped(TUTTI_VERSION));
  return out + "</dl>\n";
}

std::string tile(const char* name, const std::string& value, const std::string& note) {
  return std::string("<div class=\"tile\"><span>") + name + "</span><b>" + value + "</b><small>" +
         note + "</small></div>\n";
}

const char* const kStyle = R"(
:root { color-scheme: light dark;
  --page: #ffffff; --ink: #1c2128; --soft: #57606a; --line: #d5dbe1; --card: #f5f7f9;
  --ensemble: #0a5cc2; --member: #b4560a; --band: #e8a76a55; --yes: #1a7f37; --no: #c62828; --other: #8a949e; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14181d; --ink: #e4e8ec; --soft: #9aa5b1; --line: #343c45; --card: #1d232a;
  --ensemble: #6db3ff; --member: #ffab66; --band: #ffab6638; --yes: #57c774; --no: #ff7b72; --other: #7d8894; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .3rem 0; max-width: 46rem; }
.lead, figcaption, .legend, small, dt { color: var(--soft); }
.tiles, .charts, .cards, dl { display: grid; gap: 1rem; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); margin-top: 1.5rem; }
.tile { background: var(--card); border-radius: 10px; padding: .8rem 1rem; }
.tile span, .tile small { display: block; font-size: .85rem; }
.tile b { font-size: 1.7rem; line-height: 1.3; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(25rem, 100%), 1fr)); gap: 2rem 1.5rem; }
figure { margin: 0; }
figcaption { font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12.5px; fill: var(--soft); }
svg text.title { font-size: 13px; fill: var(--ink); }
svg text.strong { font-weight: 700; fill: var(--ink); }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
polyline { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
polyline.thin { stroke-width: 1.2; stroke-opacity: .55; }
polyline.member, circle.member { stroke: var(--member); }
polyline.ensemble, circle.ensemble { stroke: var(--ensemble); }
polyline.diagonal { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 5 4; }
circle.member { fill: var(--member); fill-opacity: .75; }
circle.ensemble { fill: var(--ensemble); fill-opacity: .75; }
circle.few { fill-opacity: 0; stroke-width: 1.2; }
rect.member { fill: var(--member); fill-opacity: .75; }
polygon.band { fill: var(--band); }
.legend { font-size: .85rem; margin: 0 0 .3rem; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: 1.3rem; height: 0; margin-right: .4rem; vertical-align: .25em;
  border-top: 3px solid; }
.legend .ensemble { border-color: var(--ensemble); }
.legend .member { border-color: var(--member); }
.legend .diagonal { border-top: 2px dashed var(--soft); }
.legend .band { border-top: .8rem solid var(--band); vertical-align: -.1em; }
.legend .block { border-top-width: .8rem; vertical-align: -.1em; }
.cards { grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); }
.card { background: var(--card); border-radius: 10px; padding: .9rem .8rem .7rem; text-align: center; }
.card p { font-size: .85rem; margin: .5rem 0; }
.card .digit { width: 6rem; margin: 0 auto; fill: var(--ink); background: var(--page); shape-rendering: crispEdges;
  border: 1px solid var(--line); }
.card .votes text { font-size: 12px; text-anchor: middle; }
.card .votes text.dense { font-size: 9.5px; }
rect.right { fill: var(--yes); }
rect.wrong { fill: var(--other); }
.yes { color: var(--yes); } .no { color: var(--no); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1.2rem; }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; font-weight: 400; }
thead th { font-weight: 600; }
.together { font-weight: 700; color: var(--ensemble); }
dl { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 0; }
dt { font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; }
)";

}  // namespace

std::string html_report(const Results& r) {
  const std::string members = std::to_string(r.settings.members);
  const Spread accuracy = r.member(&Quality::accuracy), nll = r.member(&Quality::nll),
               ece = r.member(&Quality::ece);
  std::ostringstream out;
  out << "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
         "<link rel=\"icon\" href=\"data:,\"/>\n<title>An ensemble reads digits</title>\n<style>"
      << kStyle << "</style></head>\n<body>\n<h1>An ensemble reads digits</h1>\n<p class=\"lead\">"
      << members << (r.settings.members == 1 ? " network" : " networks")
      << " learned to read handwritten digits at the same time: one stacked set of parameters, one "
         "vmapped "
         "gradient step. Each started from its own weights and saw its own bootstrap sample of "
      << r.train_rows << " pictures; " << r.test.size()
      << " others test them.</p>\n<div class=\"tiles\">\n"
      << tile("Ensemble accuracy", percent(r.ensemble.accuracy, 2),
              "mean member " + percent(accuracy.mean, 2))
      << tile("Negative log-likelihood", fixed(r.ensemble.nll, 4),
              "mean member " + fixed(nll.mean, 4))
      << tile("Calibration error", fixed(r.ensemble.ece, 4), "mean member " + fixed(ece.mean, 4))
      << tile("Time per epoch", seconds(r.times.vmapped),
              fixed(r.times.loop / r.times.vmapped, 1) + "&#215; as fast as the loop")
      << "</div>\n<h2>How they learned</h2>\n<div class=\"charts\">\n"
      << loss_chart(r) << accuracy_chart(r)
      << "</div>\n<h2>How far to trust them</h2>\n<div class=\"charts\">\n"
      << reliability_chart(r) << member_histogram(r)
      << "</div>\n<h2>The most disputed digits</h2>\n"
      << "<p>The " << r.disputed.size()
      << (r.settings.members == 1 ? " test pictures the network is least sure of. "
                                  : " test pictures about which the members disagree most. ")
      << "Bars count the " << members << (r.settings.members == 1 ? " vote" : " votes")
      << "; the right digit is green.</p>\n"
      << disputed_digits(r) << "<h2>Numbers</h2>\n<div class=\"scroll\">\n"
      << summary_table(r) << time_table(r) << "</div>\n<h2>Settings</h2>\n"
      << settings_list(r) << "</body></html>\n";
  return out.str();
}

}  // namespace digits
