/*
 * Two processes on one channel: the master sends its state, the slave answers each with a command.
 *
 *     ./master_slave master robot 1000 &
 *     ./master_slave slave robot
 *
 * The master ends after that many messages, the slave when it is told so.
 */
#define _POSIX_C_SOURCE 200809L

#include <eshm.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What the master sends: plain bytes, of the same layout on both sides. */
struct State {
  uint64_t number;
  double position;
  uint8_t last;
  uint8_t unused[7];
};

/* What the slave answers. */
struct Command {
  uint64_t answers;
  double speed;
};

static void sleep_ms(long milliseconds) {
  struct timespec time;
  time.tv_sec = milliseconds / 1000;
  time.tv_nsec = milliseconds % 1000 * 1000000;
  nanosleep(&time, NULL);
}

static int fail(const char *what, int code) {
  fprintf(stderr, "%s: %s (%d)\n", what, eshm_error_string(code), code);
  return EXIT_FAILURE;
}

static ESHMHandle *open_channel(const char *name, ESHMRole role) {
  ESHMConfig config = eshm_default_config(name);
  config.role = role;
  /* A busy machine may hold a process up for longer than the usual 100 ms. */
  config.stale_threshold_ms = 1000;
  return eshm_init(&config);
}

static int print_stats(const char *who, ESHMHandle *handle) {
  ESHMStats stats;
  int code = eshm_get_stats(handle, &stats);
  if (code != ESHM_SUCCESS) {
    return fail("statistics", code);
  }
  printf("%s: %" PRIu64 " states written, %" PRIu64 " read; %" PRIu64 " commands written, %" PRIu64
         " read\n",
         who, stats.m2s_write_count, stats.m2s_read_count, stats.s2m_write_count,
         stats.s2m_read_count);
  return EXIT_SUCCESS;
}

static int run_master(const char *name, uint64_t messages) {
  struct State state;
  struct Command command;
  bool is_there = false;
  int code, result;
  ESHMHandle *handle = open_channel(name, ESHM_ROLE_MASTER);
  if (handle == NULL) {
    return EXIT_FAILURE; /* eshm_init said why. */
  }
  while (!is_there) {
    code = eshm_check_remote_alive(handle, &is_there);
    if (code != ESHM_SUCCESS) {
      return fail("looking for the slave", code);
    }
    sleep_ms(1);
  }
  memset(&state, 0, sizeof state);
  for (state.number = 1; state.number <= messages; state.number++) {
    size_t len = 0;
    state.last = state.number == messages;
    code = eshm_write(handle, &state, sizeof state);
    if (code != ESHM_SUCCESS) {
      return fail("writing a state", code);
    }
    code = eshm_read_ex(handle, &command, sizeof command, &len, 10000);
    if (code != ESHM_SUCCESS) {
      return fail("reading a command", code);
    }
    if (len != sizeof command || command.answers != state.number) {
      fprintf(stderr, "an answer to %" PRIu64 ", not to %" PRIu64 "\n", command.answers,
              state.number);
      return EXIT_FAILURE;
    }
    state.position += command.speed;
  }
  printf("master: at %.1f\n", state.position);
  result = print_stats("master", handle);
  /* Removes the object. */
  code = eshm_destroy(handle);
  return code == ESHM_SUCCESS ? result : fail("destroying the endpoint", code);
}

static int run_slave(const char *name) {
  struct State state;
  struct Command command;
  int code, attempts, result = EXIT_SUCCESS;
  ESHMHandle *handle = NULL;
  /* The object is there as soon as the master is. */
  for (attempts = 0; handle == NULL && attempts < 200; attempts++) {
    handle = open_channel(name, ESHM_ROLE_SLAVE);
    if (handle == NULL) {
      sleep_ms(50);
    }
  }
  if (handle == NULL) {
    return EXIT_FAILURE;
  }
  memset(&state, 0, sizeof state);
  memset(&command, 0, sizeof command);
  while (!state.last) {
    code = eshm_read(handle, &state, sizeof state);
    if (code == ESHM_ERROR_TIMEOUT) {
      fprintf(stderr, "slave: nothing for a second\n");
      continue;
    }
    if (code != (int)sizeof state) {
      return fail("reading a state", code);
    }
    if (state.last) {
      /* While the master is still there. */
      result = print_stats("slave", handle);
    }
    command.answers = state.number;
    command.speed = 0.5;
    code = eshm_write(handle, &command, sizeof command);
    if (code != ESHM_SUCCESS) {
      return fail("writing a command", code);
    }
  }
  code = eshm_destroy(handle);
  return code == ESHM_SUCCESS ? result : fail("destroying the endpoint", code);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "master") == 0) {
    return run_master(argv[2], strtoull(argv[3], NULL, 10));
  }
  if (argc == 3 && strcmp(argv[1], "slave") == 0) {
    return run_slave(argv[2]);
  }
  fprintf(stderr, "usage: %s master NAME MESSAGES | %s slave NAME\n", argv[0], argv[0]);
  return EXIT_FAILURE;
}
