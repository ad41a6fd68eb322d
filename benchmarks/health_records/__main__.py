from benchmarks.health_records.command import main

if __name__ == "__main__":
    main()
