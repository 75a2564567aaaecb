#pragma once
/// Progress reports of long-running operations. The library itself neither logs nor prints.

#include <cstdint>
#include <string>
#include <string_view>

#include "mha2mla/error.hpp"

namespace mha2mla {

/// Base class for receivers of progress reports; override what you need. All calls come from the thread that called the
/// library.
class Observer {
public:
    Observer() = default;
    virtual ~Observer() = default;
    Observer(const Observer&) = default;
    Observer& operator=(const Observer&) = default;
    Observer(Observer&&) = default;
    Observer& operator=(Observer&&) = default;

    /// Reports that `done` of `total` steps of `stage` are finished. `done` is 0 when the stage begins.
    virtual void progress(std::string_view stage, std::int64_t done, std::int64_t total) {
        (void)stage, (void)done, (void)total;
    }
    /// Reports a problem that does not stop the run.
    virtual void warn(const std::string& message) { (void)message; }
    /// Called between steps. If it returns true, the operation cleans up and throws Error{interrupted}.
    [[nodiscard]] virtual bool cancelled() const { return false; }

    /// Calls progress(). @throws Error{interrupted} if cancelled().
    void step(std::string_view stage, std::int64_t done, std::int64_t total) {
        if (cancelled()) throw Error(ErrorCode::interrupted, "interrupted");
        progress(stage, done, total);
    }
};

}  // namespace mha2mla
