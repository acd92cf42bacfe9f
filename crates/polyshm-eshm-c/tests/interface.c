/*
 * What the header promises: numbers, layouts, defaults, and that every function is there. Built as
 * C99, C11 and C++.
 */
#include <eshm.h>
#include <eshm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The length of an array cannot be negative: checked when this is built. */
#define HOLDS(name, condition) typedef char name[(condition) ? 1 : -1]
#define FIELD(type, field, at) HOLDS(type##_##field##_at_##at, offsetof(type, field) == at)

HOLDS(config_size, sizeof(ESHMConfig) == 40);
FIELD(ESHMConfig, shm_name, 0);
FIELD(ESHMConfig, role, 8);
FIELD(ESHMConfig, disconnect_behavior, 12);
FIELD(ESHMConfig, stale_threshold_ms, 16);
FIELD(ESHMConfig, reconnect_wait_ms, 20);
FIELD(ESHMConfig, reconnect_retry_interval_ms, 24);
FIELD(ESHMConfig, max_reconnect_attempts, 28);
FIELD(ESHMConfig, auto_cleanup, 32);
FIELD(ESHMConfig, use_threads, 33);

HOLDS(stats_size, sizeof(ESHMStats) == 80);
FIELD(ESHMStats, master_heartbeat, 0);
FIELD(ESHMStats, slave_heartbeat, 8);
FIELD(ESHMStats, master_pid, 16);
FIELD(ESHMStats, slave_pid, 20);
FIELD(ESHMStats, master_alive, 24);
FIELD(ESHMStats, slave_alive, 25);
FIELD(ESHMStats, stale_threshold, 28);
FIELD(ESHMStats, master_heartbeat_delta, 32);
FIELD(ESHMStats, slave_heartbeat_delta, 40);
FIELD(ESHMStats, m2s_write_count, 48);
FIELD(ESHMStats, m2s_read_count, 56);
FIELD(ESHMStats, s2m_write_count, 64);
FIELD(ESHMStats, s2m_read_count, 72);

HOLDS(binary_size, sizeof(ESHMBinary) == 16);
FIELD(ESHMBinary, data, 0);
FIELD(ESHMBinary, len, 8);

HOLDS(roles, ESHM_ROLE_MASTER == 0 && ESHM_ROLE_SLAVE == 1 && ESHM_ROLE_AUTO == 2);
HOLDS(behaviours, ESHM_DISCONNECT_IMMEDIATELY == 0 && ESHM_DISCONNECT_ON_TIMEOUT == 1 &&
                      ESHM_DISCONNECT_NEVER == 2);
HOLDS(types, ESHM_ITEM_INTEGER == 0 && ESHM_ITEM_BOOLEAN == 1 && ESHM_ITEM_REAL == 2 &&
                 ESHM_ITEM_STRING == 3 && ESHM_ITEM_BINARY == 4 && ESHM_ITEM_EVENT == 5 &&
                 ESHM_ITEM_FUNCTION_CALL == 6 && ESHM_ITEM_IMAGE_FRAME == 7);
HOLDS(max_data_size, ESHM_MAX_DATA_SIZE == 4096);

static void check(int holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "not so: %s\n", what);
    exit(EXIT_FAILURE);
  }
}
#define CHECK(condition) check(condition, #condition)

static const struct {
  enum ESHMError code;
  int number;
  const char *text;
} CODES[] = {
    {ESHM_SUCCESS, 0, "Success"},
    {ESHM_ERROR_INVALID_PARAM, -1, "Invalid parameter"},
    {ESHM_ERROR_SHM_CREATE, -2, "Failed to create shared memory"},
    {ESHM_ERROR_SHM_ATTACH, -3, "Failed to attach to shared memory"},
    {ESHM_ERROR_SHM_DETACH, -4, "Failed to detach from shared memory"},
    {ESHM_ERROR_SHM_DELETE, -5, "Failed to delete shared memory"},
    {ESHM_ERROR_MUTEX_INIT, -6, "Failed to initialize mutex"},
    {ESHM_ERROR_MUTEX_LOCK, -7, "Failed to lock mutex"},
    {ESHM_ERROR_MUTEX_UNLOCK, -8, "Failed to unlock mutex"},
    {ESHM_ERROR_NO_DATA, -9, "No data available"},
    {ESHM_ERROR_TIMEOUT, -10, "Operation timed out"},
    {ESHM_ERROR_MASTER_STALE, -11, "Master is stale"},
    {ESHM_ERROR_BUFFER_FULL, -12, "Buffer is full"},
    {ESHM_ERROR_BUFFER_TOO_SMALL, -13, "Buffer too small"},
    {ESHM_ERROR_NOT_INITIALIZED, -14, "Not initialized"},
    {ESHM_ERROR_ROLE_MISMATCH, -15, "Role mismatch"},
};

static void defaults(void) {
  const char *name = "name";
  ESHMConfig config = eshm_default_config(name);
  CHECK(config.shm_name == name);
  CHECK(config.role == ESHM_ROLE_AUTO);
  CHECK(config.disconnect_behavior == ESHM_DISCONNECT_ON_TIMEOUT);
  CHECK(config.stale_threshold_ms == 100);
  CHECK(config.reconnect_wait_ms == 5000);
  CHECK(config.reconnect_retry_interval_ms == 100);
  CHECK(config.max_reconnect_attempts == 50);
  CHECK(config.auto_cleanup && config.use_threads);
}

static void codes(void) {
  size_t at;
  for (at = 0; at < sizeof CODES / sizeof *CODES; at++) {
    check((int)CODES[at].code == CODES[at].number, CODES[at].text);
    check(strcmp(eshm_error_string(CODES[at].number), CODES[at].text) == 0, CODES[at].text);
  }
  CHECK(strcmp(eshm_error_string(-16), "Unknown error") == 0);
  CHECK(strcmp(eshm_error_string(1), "Unknown error") == 0);
}

/* Every function is called, so that none can lack. */
static void no_handle(void) {
  ESHMStats stats;
  enum ESHMRole role;
  bool is_alive;
  size_t len;
  char buffer[8];
  uint8_t types[1];
  char *keys[1];
  void *values[1];
  int count;
  keys[0] = buffer;
  CHECK(eshm_init(NULL) == NULL);
  CHECK(eshm_init_with_capacity(NULL, 1) == NULL);
  CHECK(eshm_write(NULL, "", 0) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_read(NULL, buffer, sizeof buffer) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_read_ex(NULL, buffer, sizeof buffer, &len, 0) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_read_data(NULL, types, keys, 8, values, 1, &count, 0) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_update_heartbeat(NULL) == ESHM_ERROR_NOT_INITIALIZED);
  CHECK(eshm_check_remote_alive(NULL, &is_alive) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_get_stats(NULL, &stats) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_get_role(NULL, &role) == ESHM_ERROR_INVALID_PARAM);
  CHECK(eshm_destroy(NULL) == ESHM_ERROR_INVALID_PARAM);
  eshm_free_value(NULL, ESHM_ITEM_BINARY);
}

/* All of a channel in one process, with every form of item. */
static void round_trip(const char *name) {
  static const int64_t integer = -42;
  static const bool boolean = true;
  static const double real = 23.5;
  static uint8_t bytes[] = {0, 7, 14};
  ESHMBinary binary = {bytes, sizeof bytes};
  const uint8_t types[] = {ESHM_ITEM_INTEGER, ESHM_ITEM_BOOLEAN, ESHM_ITEM_REAL, ESHM_ITEM_STRING,
                           ESHM_ITEM_BINARY};
  const char *keys[] = {"integer", "boolean", "real", "string", "binary"};
  const void *values[] = {&integer, &boolean, &real, "text", &binary};
  uint8_t message[256], read_types[5];
  char texts[5][8];
  char *read_keys[5];
  void *read_values[5];
  int len, count, at;
  void *handler = dh_create();
  ESHMConfig config = eshm_default_config(name);
  ESHMHandle *master, *slave;

  for (at = 0; at < 5; at++) {
    read_keys[at] = texts[at];
  }
  CHECK(handler != NULL);
  len = dh_encode(handler, types, keys, values, 5, message, sizeof message);
  CHECK(len > 0);
  CHECK(dh_decode(handler, message, len, read_types, read_keys, 8, read_values, 5) == 5);
  CHECK(*(int64_t *)read_values[0] == integer);
  for (at = 0; at < 5; at++) {
    dh_free_value(read_types[at], read_values[at]);
  }
  CHECK(dh_encode(handler, types, keys, values, 5, message, 1) == -1);
  CHECK(strlen(dh_get_last_error()) > 0);
  dh_destroy(handler);

  config.role = ESHM_ROLE_MASTER;
  master = eshm_init(&config);
  CHECK(master != NULL);
  config.role = ESHM_ROLE_SLAVE;
  slave = eshm_init(&config);
  CHECK(slave != NULL);
  CHECK(eshm_write(master, message, (size_t)len) == ESHM_SUCCESS);
  CHECK(eshm_read_data(slave, read_types, read_keys, 8, read_values, 5, &count, 1000) ==
        ESHM_SUCCESS);
  CHECK(count == 5);
  CHECK(memcmp(read_types, types, 5) == 0);
  for (at = 0; at < 5; at++) {
    CHECK(strncmp(texts[at], keys[at], 8) == 0);
  }
  CHECK(*(int64_t *)read_values[0] == integer);
  CHECK(*(bool *)read_values[1] == boolean);
  CHECK(*(double *)read_values[2] == real);
  CHECK(strcmp((char *)read_values[3], "text") == 0);
  CHECK(((ESHMBinary *)read_values[4])->len == sizeof bytes);
  CHECK(memcmp(((ESHMBinary *)read_values[4])->data, bytes, sizeof bytes) == 0);
  /* By hand, as the C library's own. */
  free(read_values[0]);
  for (at = 1; at < 5; at++) {
    eshm_free_value(read_values[at], read_types[at]);
  }
  CHECK(eshm_destroy(slave) == ESHM_SUCCESS);
  CHECK(eshm_destroy(master) == ESHM_SUCCESS);
  CHECK(eshm_destroy(master) == ESHM_ERROR_INVALID_PARAM);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s NAME\n", argv[0]);
    return EXIT_FAILURE;
  }
  defaults();
  codes();
  no_handle();
  round_trip(argv[1]);
  return EXIT_SUCCESS;
}
